from tests.support.serving.sample_servers import sample_url, start

__all__ = ["sample_url", "start"]
