"""A model's folder as a stranger may have written it: what is read of it, and what never is.

A model folder (`--vision ./folder`, a hub repository's snapshot, the encoders of a run folder) holds JSON files whose
keys reach the loaders of timm, transformers and open_clip. Some of these keys run code (``auto_map``, an attention
kernel's repository), others name another file, address or repository (``tokenizer_file``, ``checkpoint_path``,
``hf_model_name``, a PEFT adapter's base). `checked_folder` gives the libraries a temporary folder that holds nothing
but known files with known keys, of checked types and ranges, and safetensors; pickles and Python files are not even
linked.
"""

from mi2p_inject.core.model_folder.hub import hub_folder as hub_folder
from mi2p_inject.core.model_folder.limits import bounded as bounded
from mi2p_inject.core.model_folder.limits import check_buildable as check_buildable
from mi2p_inject.core.model_folder.limits import check_size as check_size
from mi2p_inject.core.model_folder.open_clip import checked_model_cfg as checked_model_cfg
from mi2p_inject.core.model_folder.stage import checked_folder as checked_folder
from mi2p_inject.core.model_folder.stage import own_file as own_file
from mi2p_inject.core.model_folder.timm import checked_architecture as checked_architecture
from mi2p_inject.core.model_folder.timm import checked_kwargs as checked_kwargs
from mi2p_inject.core.model_folder.values import checked_fields as checked_fields
from mi2p_inject.core.model_folder.values import read_json as read_json

__all__ = [
    "bounded",
    "check_buildable",
    "check_size",
    "checked_architecture",
    "checked_fields",
    "checked_folder",
    "checked_kwargs",
    "checked_model_cfg",
    "hub_folder",
    "own_file",
    "read_json",
]
