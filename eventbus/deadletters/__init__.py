"""Dead letters, which are messages that a consumer could not handle: collect, show, replay, discard and purge them."""
