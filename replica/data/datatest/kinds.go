package datatest

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// classNames are what people call classes; two forms of one name are one class.
var classNames = []string{"cat", "dog", "Dog", "Café", "Cafe\u0301", "猫", "a b", "x.y", "007", "7", "n01440764", "trash", "training-shoes", "valid_id", "test_tube", "-1", "images"}

// rubbish puts things into a folder that are no part of the data.
func (w *maker) rubbish(dir string) {
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{".hidden.png", w.image()}, {"Thumbs.db", []byte("x")}, {"@eaDir/a.png/SYNOPHOTO_THUMB_M.png", w.image()}, {"__MACOSX/._a.png", []byte("x")},
		{"notes.txt", []byte("hello")}, {"boxes.xml", []byte("<a/>")}, {"film.mp4", []byte{0, 1, 2, 3}}, {"lost+found/9.jpg", w.image()}, {".git/config", []byte("x")},
	} {
		if w.chance(12) {
			w.put(path.Join(dir, f.name), f.content)
			w.left++
		}
	}
}

// tree makes a folder of images.
func (w *maker) tree() {
	root := ""
	if w.chance(20) { // as archives unpack
		root = w.pick("archive", "data set")
	}
	splits := map[string]map[string]string{"": w.train}
	if w.chance(60) {
		train, test := w.pick("train", "Train", "training", "ILSVRC2012_img_train", "train2017"), w.pick("val", "valid", "VALIDATION", "dev", "Test", "ILSVRC2012_img_val", "test_images")
		splits = map[string]map[string]string{train: w.train, test: w.test}
		if w.chance(20) { // not a split
			w.put(path.Join(root, "extra/1.png"), w.image())
			w.left++
		}
	}
	names := slices.Clone(classNames)
	w.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:2+w.rng.IntN(4)]
	for _, split := range slices.Sorted(maps.Keys(splits)) {
		truth := splits[split]
		dir := path.Join(root, split)
		for _, class := range names {
			for i := range 1 + w.rng.IntN(3) {
				in := path.Join(dir, class)
				if w.chance(15) {
					in = path.Join(in, w.pick("deep", "Deeper"))
				}
				name := path.Join(in, fmt.Sprintf("%d%s", i, w.pick(".png", ".PNG", ".jpg", "", ".image")))
				if _, there := w.files[name]; there {
					continue
				}
				w.put(name, w.image())
				truth[name] = norm.NFC.String(class)
				if w.chance(10) {
					stem := strings.TrimSuffix(name, path.Ext(name))
					w.put(stem+w.pick("_mask.png", ".seg.png", "-depth.png"), w.image())
					w.left++
				}
				if w.chance(8) {
					link := path.Join(dir, class, fmt.Sprintf("link%d.png", i))
					w.links[link] = w.pick("gone.png", "..", "")
					if w.links[link] == "" { // to the image
						rel, _ := filepath.Rel(path.Dir(link), name)
						w.links[link] = rel
						truth[link] = norm.NFC.String(class)
					} else {
						w.left++
					}
				}
			}
			w.rubbish(path.Join(dir, class))
		}
		if split != "" || root == "" {
			if w.chance(20) {
				w.put(path.Join(dir, "loose.png"), w.image())
				w.left++
			}
			w.rubbish(dir)
		}
	}
}

// tar makes the members of a shard.
func (w *maker) tar() {
	number := w.chance(50)
	for i := range 4 + w.rng.IntN(8) {
		key := w.pick("", "dir/", "other.dir/") + fmt.Sprintf("%03d", i)
		if w.chance(20) {
			key += ".v1" // a dot in the key
		}
		class := w.pick("cat", "Café", "dog", "a b")
		if number {
			class = fmt.Sprint(w.rng.IntN(4))
		}
		image := key + w.pick(".png", ".PNG", ".jpg")
		w.put(image, w.image())
		text := class
		if number {
			text = w.pick(class, class+"\n", "\ufeff"+class, class+".0", "0"+class, " "+class)
		}
		switch form := w.rng.IntN(5); {
		case form == 0: // JSON, a number where it is one
			value := fmt.Sprintf("%q", class)
			if number {
				value = w.pick(class, class+".0", "["+class+"]", `"`+class+`"`)
			}
			text = fmt.Sprintf(`{%q: %s, "boxes": [1, 2]}`, w.pick("label", "cls", "class"), value)
			w.put(key+".json", []byte(text))
			w.read++
		case form == 1: // no class
			text, class = w.pick("-1", "", "\n", "-7.0"), ""
			w.put(key+".cls", []byte(text))
			w.read++
		case form == 2 && !strings.Contains(key, ".v"): // by a link, as the others'
			w.put("labels"+fmt.Sprint(i)+".cls", []byte(text))
			w.left++ // it is no sample's
			w.links[key+".cls"] = path.Join("..", "labels"+fmt.Sprint(i)+".cls")
			if !strings.Contains(key, "/") {
				w.links[key+".cls"] = "labels" + fmt.Sprint(i) + ".cls"
			}
			w.order = append(w.order, key+".cls")
			w.read++
		default:
			w.put(key+".cls", []byte(text))
			w.read++
		}
		w.train[image] = class
		if w.chance(15) && !strings.Contains(key, ".v") {
			w.put(key+w.pick(".seg.png", ".mask.png", ".left.png"), w.image())
			w.left++
		}
		if w.chance(15) {
			w.put(key+".txt", []byte("a caption"))
			w.left++
		}
	}
	w.rubbish("dir")
	if w.chance(30) {
		w.links["dead.png"] = "nowhere.png"
		w.order = append(w.order, "dead.png")
		w.left++
	}
	w.rng.Shuffle(len(w.order), func(i, j int) { w.order[i], w.order[j] = w.order[j], w.order[i] })
}
