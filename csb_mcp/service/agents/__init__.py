"""What agents inside sandboxes do, by all that can be seen of them; what they are told and asked.

All evidence comes from inside. It steers attention: nothing that reaches outside is decided by it.
"""
