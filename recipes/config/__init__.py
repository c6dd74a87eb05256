"""The options of a training, apart from the code that trains: each is written once, as a field of one of five groups.

``config.data``, ``config.model``, ``config.optimisation``, ``config.answers`` and ``config.run`` are passed whole to
whom they concern. The command line, YAML files, ``--set``, `mi2p settings` and docs/settings.md are made from the
fields: see `mi2p_inject.recipes.config.option`.
"""

from mi2p_inject.recipes.config.config import OPTIONS as OPTIONS
from mi2p_inject.recipes.config.config import Config as Config
from mi2p_inject.recipes.config.make import make_config as make_config
from mi2p_inject.recipes.config.make import with_options as with_options
from mi2p_inject.recipes.config.presets import PRESETS as PRESETS
from mi2p_inject.recipes.config.read import parse_assignments as parse_assignments
from mi2p_inject.recipes.config.read import read_yaml as read_yaml
from mi2p_inject.recipes.config.sections.answers import AnswersConfig as AnswersConfig
from mi2p_inject.recipes.config.sections.data import DataConfig as DataConfig
from mi2p_inject.recipes.config.sections.model import ModelConfig as ModelConfig
from mi2p_inject.recipes.config.sections.optimisation import OptimisationConfig as OptimisationConfig
from mi2p_inject.recipes.config.sections.run import RunConfig as RunConfig

__all__ = [
    "OPTIONS",
    "PRESETS",
    "AnswersConfig",
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimisationConfig",
    "RunConfig",
    "make_config",
    "parse_assignments",
    "read_yaml",
    "with_options",
]
