module github.com/idemflight/idemflight/bench

go 1.26.0

require (
	github.com/Yiling-J/theine-go v0.6.3
	github.com/bep/lazycache v0.9.0
	github.com/hashicorp/golang-lru/v2 v2.0.7
	github.com/idemflight/idemflight v0.0.0
	github.com/jellydator/ttlcache/v3 v3.4.1
	github.com/maypok86/otter/v2 v2.4.0
	github.com/stretchr/testify v1.12.1
	github.com/viccon/sturdyc v1.1.5
	golang.org/x/sync v0.25.0
	resenje.org/singleflight v0.4.3
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/klauspost/cpuid/v2 v2.0.9 // indirect
	github.com/zeebo/xxh3 v1.0.2 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.50.0 // indirect
)

replace github.com/idemflight/idemflight => ../
