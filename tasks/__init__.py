"""Task adapters: what makes a model explainable."""

from mmgradcam.tasks.captioning import Captioning
from mmgradcam.tasks.hub.generative import GenerativeVLM
from mmgradcam.tasks.layer import Layer
from mmgradcam.tasks.loading import load
from mmgradcam.tasks.policy import Policy
from mmgradcam.tasks.video import Video
from mmgradcam.tasks.vqa import VQA

__all__ = ["VQA", "Captioning", "GenerativeVLM", "Layer", "Policy", "Video", "load"]
