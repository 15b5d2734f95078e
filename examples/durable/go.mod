module github.com/idemflight/idemflight/examples/durable

go 1.26

require (
	github.com/idemflight/idemflight v0.0.0
	github.com/idemflight/idemflight/boltstore v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.45.0 // indirect
)

replace (
	github.com/idemflight/idemflight => ../../
	github.com/idemflight/idemflight/boltstore => ../../boltstore
)
