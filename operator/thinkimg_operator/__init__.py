"""The Kubernetes operator of ThinkIMG: it makes VisionTools and ToolRLJobs true."""
