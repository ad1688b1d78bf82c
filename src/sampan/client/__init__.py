"""How planks speak to a server: messages, client, cached views, and the runner of controllers."""
