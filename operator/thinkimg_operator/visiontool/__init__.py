"""VisionTool: a tool server as a Deployment with its Services."""
