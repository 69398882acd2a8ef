"""Registers our classes with transformers' Auto classes, for programs that have eulerstack installed."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from eulerstack.hf.configuration import EulerStackConfig
from eulerstack.hf.models import EulerStackForCausalLM, EulerStackModel


def register_eulerstack_auto_classes() -> None:
    """Makes `model_type: eulerstack` known to AutoConfig, AutoModel and AutoModelForCausalLM; safe to call again."""
    AutoConfig.register(EulerStackConfig.model_type, EulerStackConfig, exist_ok=True)
    AutoModel.register(EulerStackConfig, EulerStackModel, exist_ok=True)
    AutoModelForCausalLM.register(EulerStackConfig, EulerStackForCausalLM, exist_ok=True)
