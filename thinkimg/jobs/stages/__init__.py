"""What a stage of a ToolRLJob does, in `thinkimg run`, under torchrun and in pods alike."""
