"""What the lab and the system tests are made of: sandboxes, hosts and links, FRR, Debian roots, a small cloud."""
