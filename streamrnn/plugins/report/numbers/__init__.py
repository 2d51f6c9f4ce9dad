"""The numbers of `streamrnn report`: aggregates of committed parts, states and sources."""
