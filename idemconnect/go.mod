module github.com/idemflight/idemflight/idemconnect

go 1.26.0

require (
	connectrpc.com/connect/v2 v2.0.2
	github.com/idemflight/idemflight v0.0.0
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace github.com/idemflight/idemflight => ../
