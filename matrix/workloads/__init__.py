"""What runs inside an image: models, data, the clock, and one file a stack, export and runtime. The host never imports it."""
