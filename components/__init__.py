"""The program: components, the pure builders beneath them, and `platform`, which wires them."""
