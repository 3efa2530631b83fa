"""Speed and memory: `t5g2-bench`, and what is made of its results."""
