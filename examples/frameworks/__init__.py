"""The smallest complete application in each of three frameworks."""
