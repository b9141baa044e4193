"""Credit: steps of a response, their values and advantages, and the rows for learning that follow from them."""
