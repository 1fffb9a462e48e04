"""The doctor: finds what is wrong with a raw dataset before a GPU hour is spent on it."""
