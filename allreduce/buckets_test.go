package allreduce

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestBucketsByHand(t *testing.T) {
	// 100 is larger than the cap of 8 elements: a bucket of its own.
	got := Buckets([]int{5, 100, 3, 4, 1, 2}, 3*4, 8*4)
	want := []Bucket{
		{Lo: 4, Hi: 6, Offset: 112, Len: 3},
		{Lo: 2, Hi: 4, Offset: 105, Len: 7},
		{Lo: 1, Hi: 2, Offset: 5, Len: 100},
		{Lo: 0, Hi: 1, Offset: 0, Len: 5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := Buckets(nil, DefaultFirstBucket, DefaultBucketCap); len(got) != 0 {
		t.Errorf("no parameters gave %v", got)
	}
}

func TestBucketsPartitionTheVector(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		sizes := make([]int, rng.IntN(30))
		total := 0
		for i := range sizes {
			sizes[i] = rng.IntN(50)
			total += sizes[i]
		}
		first, limit := 1+rng.IntN(20), 1+rng.IntN(100)
		hi, end := len(sizes), total
		for i, b := range Buckets(sizes, 4*first, 4*limit) {
			elements := 0
			for _, n := range sizes[b.Lo:b.Hi] {
				elements += n
			}
			if b.Hi != hi || b.Lo >= b.Hi || b.Len != elements || b.Offset+b.Len != end {
				t.Fatalf("sizes %v: bucket %d is %+v, want it to end at parameter %d, element %d", sizes, i, b, hi, end)
			}
			most := limit
			if i == 0 {
				most = first
			}
			if b.Len > most && b.Hi-b.Lo > 1 {
				t.Fatalf("sizes %v: bucket %d has %d elements, limit %d", sizes, i, b.Len, most)
			}
			hi, end = b.Lo, b.Offset
		}
		if hi != 0 || end != 0 {
			t.Fatalf("sizes %v: parameters before %d are in no bucket", sizes, hi)
		}
	}
}

func ExampleBuckets() {
	// Three layers; backward finishes the last one first.
	for _, b := range Buckets([]int{400_000, 300_000, 200_000}, DefaultFirstBucket, DefaultBucketCap) {
		fmt.Printf("parameters %d to %d: elements %d to %d\n", b.Lo, b.Hi-1, b.Offset, b.Offset+b.Len-1)
	}
	// Output:
	// parameters 2 to 2: elements 700000 to 899999
	// parameters 0 to 1: elements 0 to 699999
}
