"""From QDQ form to integers, and what is proved of them."""
