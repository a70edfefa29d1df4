package augment_test

import (
	"fmt"

	"mochi/replica/augment"
)

// Two views of one image, as MoCo v2 makes them.
func Example() {
	recipe, err := augment.New(augment.MoCoV2, 32)
	if err != nil {
		fmt.Println(err)
		return
	}
	worker := augment.NewWorker(recipe)
	img := augment.NewImage(48, 40)
	query := make([]float32, recipe.ViewLen())
	key := make([]float32, recipe.ViewLen())

	seed, epoch, sample := uint64(1), 0, 123
	worker.View(img, augment.Seed(seed, epoch, sample, augment.QueryView), query)
	worker.View(img, augment.Seed(seed, epoch, sample, augment.KeyView), key)
	fmt.Println(len(query), len(key))
	// Output: 3072 3072
}
