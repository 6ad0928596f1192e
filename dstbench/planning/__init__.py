"""What a grid would cost, before anything is loaded or trained."""
