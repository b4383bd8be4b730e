"""From a network that was found to a folder that is deployed, and the proof of what it is worth."""
