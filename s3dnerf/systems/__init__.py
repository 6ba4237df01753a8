"""The Lightning modules: each optimises a model on clips. YAML names them without their module path."""
from s3dnerf.systems.ad_nerf import ADNeRFSystem
from s3dnerf.systems.adapted import AdaptedSystem
from s3dnerf.systems.callbacks import LoaderWait, NaNGuard, SyncPlateau
from s3dnerf.systems.code_extractor import CodeExtractorSystem
from s3dnerf.systems.disentangled import DisentangledSystem
from s3dnerf.systems.lip_sync import LipSyncSystem
from s3dnerf.systems.motion import MotionSystem
from s3dnerf.systems.person import PersonSystem
from s3dnerf.systems.talking_head import TalkingHeadSystem
from s3dnerf.systems.tracking import LogRenderings, Tracking, Wandb

__all__ = ["ADNeRFSystem", "AdaptedSystem", "CodeExtractorSystem", "DisentangledSystem", "LipSyncSystem", "LoaderWait",
           "LogRenderings", "MotionSystem", "NaNGuard", "PersonSystem", "SyncPlateau", "TalkingHeadSystem", "Tracking",
           "Wandb"]
