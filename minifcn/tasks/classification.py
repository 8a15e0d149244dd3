"""Classification: one class for an image, which is segmentation of a single pixel."""

from .semantic import SemanticSegmentation


class Classification(SemanticSegmentation):
    """Softmax cross-entropy over the labelled images, logits (N, C) and labels (N,); judged by the accuracy."""

    score_name = "pixel_accuracy"  # the share of labels that are right, whether of pixels or of images
