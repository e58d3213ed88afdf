"""The tab that says what this is for, what it is not for, and what happens to pictures."""

from __future__ import annotations

from fer_bench.ui.try_it import PRIVACY

TEXT = f"""
## What this is

The methods that answer here were trained on FER2013's training pictures and chosen on its validation pictures by one
piece of code, and judged by another, so that their figures can be compared. Upload a face and they answer side by side;
the leaderboard says how often each of them is right, how far its training went and from which weights (`awei` holds a
network that knew ImageNet), and which rows were trained elsewhere.

## Intended use and limits

- **What the labels mean.** An answer is the label that people who looked at faces like this one would most likely
  choose. It is what a face looks like to others, not what a person feels: people smile when they are not happy and are
  sad without showing it. FER2013's own labels agree with the plurality of FER+'s ten raters on 63 % of the pictures.
- **Bias.** The training pictures come from the web. Nobody recorded who is in them, so accuracy by age, sex, skin
  colour or culture is not known here, and systems of this kind are known to differ in it. The better methods miss fear
  most often, the weaker ones disgust, of which there are few pictures.
- **No decisions about people.** Not for hiring, teaching, policing, insurance, health or any other decision about a
  person, and not for watching people who did not agree. In the European Union, inferring emotions at work and in
  schools is forbidden, with narrow exceptions (Regulation (EU) 2024/1689, article 5).
- **What it is good for.** Comparing methods, teaching, finding out where they fail, and checking a published claim.

## Your pictures

{PRIVACY} Nothing that you give is shown to anyone else.

## Use it from a program

The same answers over the network, with `pip install gradio_client`:

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")  # or the Space's name
rows = client.predict(handle_file("face.jpg"), ["small_cnn"], api_name="/predict")
```

Without a server, `python -m fer_bench.predict FOLDER -o scores.csv` and
`fer_bench.load("small_cnn").predict_faces("face.jpg")` find the faces and give the same figures. Where there is none,
the command takes the middle square of the picture, as the server does, and `predict_faces` gives nothing; `predict`
finds no faces: it takes pictures that are cropped to one already.
"""


def build() -> None:
    """The tab's text; called inside a `gr.Tab`."""
    import gradio as gr

    gr.Markdown(TEXT, elem_id="about")
