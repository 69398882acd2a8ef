"""One small EulerStack plugin of every kind."""
