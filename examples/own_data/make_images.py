"""Write small images and images.csv, which lists them: python make_images.py

Each image has any of a red, a green and a blue square. Your own images need only such a file.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, NUM_IMAGES = 32, 400
COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


def main() -> None:
    folder = Path(__file__).parent / "images"
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    rows = []
    for number in range(NUM_IMAGES):
        pixels = generator.normal(110, 25, (SIZE, SIZE, 3))
        has = generator.integers(2, size=len(COLOURS))
        for colour in np.array(list(COLOURS.values()))[has == 1]:
            y, x = generator.integers(SIZE - 8, size=2)
            pixels[y : y + 8, x : x + 8] = colour
        name = f"images/{number:04}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder.parent / name)
        rows.append([name, "test" if number % 5 == 0 else "train", *has])
    with open(folder.with_name("images.csv"), "w", newline="") as file:
        csv.writer(file).writerows([["image", "split", *COLOURS], *rows])


if __name__ == "__main__":
    main()
