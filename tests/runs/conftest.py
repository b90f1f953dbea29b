from ..demo_run import browse, config, decoder, encoder, make_scorer, params, task  # noqa: F401
from ..stored_models import adapter, imported  # noqa: F401
