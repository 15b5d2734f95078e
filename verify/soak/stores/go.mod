module github.com/idemflight/idemflight/verify/soak/stores

go 1.26.0

require (
	github.com/idemflight/idemflight v0.0.0
	github.com/idemflight/idemflight/boltstore v0.0.0
	github.com/idemflight/idemflight/pgstore v0.0.0
	github.com/idemflight/idemflight/redisstore v0.0.0
	github.com/idemflight/idemflight/verify v0.0.0
	github.com/jackc/pgx/v5 v5.12.0
	github.com/redis/go-redis/v9 v9.23.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)

replace (
	github.com/idemflight/idemflight => ../../..
	github.com/idemflight/idemflight/boltstore => ../../../boltstore
	github.com/idemflight/idemflight/pgstore => ../../../pgstore
	github.com/idemflight/idemflight/redisstore => ../../../redisstore
	github.com/idemflight/idemflight/verify => ../..
)
