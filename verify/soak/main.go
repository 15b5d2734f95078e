package main

import "github.com/idemflight/idemflight/verify/internal/soak"

func main() { soak.Main("go run -C verify ./soak") }
