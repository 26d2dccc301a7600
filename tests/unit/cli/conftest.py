from tests.support.serving.sample_servers import sample_url

__all__ = ["sample_url"]
