"""What needs torch. Modules in here import it when they are imported, and only a tool's `load` imports them."""
