"""Parts of the models: one `nn.Module` per file, no input or output of files."""
