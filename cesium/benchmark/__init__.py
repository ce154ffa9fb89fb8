"""What `cesium bench` is made of."""
