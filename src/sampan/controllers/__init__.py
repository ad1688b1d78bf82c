"""The mind: each file says what one kind means, as a pure function from what is seen to a Plan."""
