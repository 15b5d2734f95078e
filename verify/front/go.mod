module github.com/idemflight/idemflight/verify/front

go 1.26

require (
	github.com/hashicorp/go-retryablehttp v0.7.8
	github.com/idemflight/idemflight v0.0.0
	github.com/idemflight/idemflight/pgstore v0.0.0
	github.com/jackc/pgx/v5 v5.12.0
	github.com/stretchr/testify v1.12.1
	github.com/tsenart/vegeta/v12 v12.13.0
)

replace (
	github.com/idemflight/idemflight => ../..
	github.com/idemflight/idemflight/pgstore => ../../pgstore
)
