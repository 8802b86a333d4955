"""The commands of `mtl`, one click file each: options and help; what they do is in the rooms below."""
