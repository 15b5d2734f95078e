module example.com/vet

go 1.26.0

require (
	github.com/gin-gonic/gin v0.0.0
	github.com/gofrs/uuid/v5 v5.0.0-00010101000000-000000000000
	github.com/google/uuid v0.0.0-00010101000000-000000000000
	github.com/idemflight/idemflight v0.0.0
	github.com/jackc/pgx/v5 v5.0.0
	github.com/oklog/ulid/v2 v2.0.0-00010101000000-000000000000
	github.com/rs/xid v0.0.0-00010101000000-000000000000
	google.golang.org/grpc v0.0.0-00010101000000-000000000000
)

require github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect

replace github.com/idemflight/idemflight => ../../

// What the tests need of other modules.
replace (
	github.com/gin-gonic/gin => ./stubs/gin
	github.com/gofrs/uuid/v5 => ./stubs/gofrs
	github.com/google/uuid => ./stubs/uuid
	github.com/jackc/pgx/v5 => ./stubs/pgx
	github.com/oklog/ulid/v2 => ./stubs/ulid
	github.com/rs/xid => ./stubs/xid
	google.golang.org/grpc => ./stubs/grpc
)
