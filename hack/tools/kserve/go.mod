// KServe as the tests' neighbour: built in its own folder, with all that its own go.sum pins.
module localmodel/hack/tools/kserve

go 1.26

require github.com/kserve/kserve v0.19.0
