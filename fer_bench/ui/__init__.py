"""The Gradio app: one file per tab, over the same inference, explanation and leaderboard code as the commands."""
