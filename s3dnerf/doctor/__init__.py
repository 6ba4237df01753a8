"""What `s3dnerf doctor` looks at: the installation, a photo, a recording of speech, a video of a person."""
