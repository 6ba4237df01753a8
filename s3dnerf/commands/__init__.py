"""The verbs of the command line; their signatures are its options, their docstrings its help."""
from s3dnerf.commands.measuring import compare, evaluate, validate
from s3dnerf.commands.preparing import download, manifest, prepare, synthesize
from s3dnerf.commands.speaking import benchmark, doctor, serve, speak, verify
from s3dnerf.commands.training import bundle, models, personalize, train

VERBS = {"speak": speak, "verify": verify, "doctor": doctor, "serve": serve, "benchmark": benchmark, "download": download,
         "manifest": manifest, "prepare": prepare, "synthesize": synthesize, "train": train, "personalize": personalize,
         "models": models, "bundle": bundle, "validate": validate, "evaluate": evaluate, "compare": compare}
