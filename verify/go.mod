module github.com/idemflight/idemflight/verify

go 1.26

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/idemflight/idemflight v0.0.0
	github.com/stretchr/testify v1.12.1
	pgregory.net/rapid v1.3.0
)

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace github.com/idemflight/idemflight => ../
