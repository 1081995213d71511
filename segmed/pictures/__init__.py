"""Pictures of images, label maps and scores, for pages, trackers and notebooks."""
