"""Where a classifier that never saw a mask looks for cats: how often its heat-map peaks inside one.

For every image of a VOC folder whose mask has a cat, EfficientNet-Lite0's scores of ImageNet's domestic cats are added
up over the image, and their peak is compared with the mask.

    python benchmarks/cat_peaks.py VOCdevkit
"""

import argparse

import numpy as np

from minifcn import data, models, weights
from minifcn.inference import classify

DOMESTIC_CATS = {
    "tabby, tiger cat, Egyptian cat": (281, 282, 285),
    "all five domestic cats": (281, 282, 283, 284, 285),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", metavar="VOCDEVKIT", help="folder in VOC's layout")
    parser.add_argument("--splits", nargs="+", default=["train", "val"])
    parser.add_argument("--limit", type=int, help="only so many images")
    args = parser.parse_args()
    model = models.efficientnet_lite0()
    weights.load_pretrained(model)
    hits, cats = dict.fromkeys(DOMESTIC_CATS, 0), 0
    for split in args.splits:
        dataset = data.VOC(args.root, split)
        cat = dataset.classes.index("cat")
        for i, id in enumerate(dataset.ids):
            if cats == args.limit or not np.any(dataset.read_label(id) == cat):
                continue
            image, label, _ = dataset[i]
            cats += 1
            for name, classes in DOMESTIC_CATS.items():
                heat = classify.heat_map(model, image, classes)
                hits[name] += bool(label[classify.peak(heat, label.shape)] == cat)
    for name, count in hits.items():
        print(f"{name}: the peak lies inside the cat's mask in {count} of {cats} images ({100 * count / cats:.1f} %)")


if __name__ == "__main__":
    main()
