//! Generated files that look like a Llama repository: sharded safetensors with a matching index, and the
//! small files around them. Every byte follows from the repository's name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

/// Length of a shard's JSON header; the format lets it be padded with spaces.
const HEADER: usize = 4096;
const HIDDEN: usize = 64;
/// Tensors of a shard, after the one that takes what the others leave over.
const LAYER_TENSORS: [&str; 9] = [
    "input_layernorm",
    "mlp.down_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "post_attention_layernorm",
    "self_attn.k_proj",
    "self_attn.o_proj",
    "self_attn.q_proj",
    "self_attn.v_proj",
];

/// How much weight a generated model has.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// Bytes of all shards together.
    pub size: usize,
    /// Number of shards.
    pub shards: usize,
}

/// Bytes that look random and depend on `seed` alone (splitmix64).
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    let mut out: Vec<u8> = words.take(length.div_ceil(8)).flatten().collect();
    out.truncate(length);
    out
}

/// The file name of shard `index`, counted from 1.
pub fn shard_name(index: usize, shards: usize) -> String {
    format!("model-{index:05}-of-{shards:05}.safetensors")
}

/// The large files of a repository, by path.
pub fn large_files(weights: Weights, seed: u64) -> BTreeMap<String, Vec<u8>> {
    shard_sizes(weights)
        .into_iter()
        .enumerate()
        .map(|(i, size)| (shard_name(i + 1, weights.shards), shard(i, size, seed ^ shard_seed(i))))
        .collect()
}

/// Keeps shards apart even where the seeds of two models are neighbours.
fn shard_seed(shard: usize) -> u64 {
    (shard as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// The small files of a repository, by path.
pub fn small_files(repo: &str, weights: Weights) -> BTreeMap<String, Vec<u8>> {
    let mut vocabulary = BTreeMap::new();
    for token in 0..256 {
        vocabulary.insert(format!("<0x{token:02X}>"), token);
    }
    let files = [
        (
            "config.json",
            pretty(&json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
                "hidden_size": HIDDEN, "num_hidden_layers": weights.shards, "num_attention_heads": 4,
                "num_key_value_heads": 2, "vocab_size": vocabulary.len(),
                "bos_token_id": 0, "eos_token_id": 1,
            })),
        ),
        (
            "generation_config.json",
            pretty(&json!({
                "bos_token_id": 0, "eos_token_id": 1, "do_sample": true, "temperature": 0.6, "top_p": 0.9,
            })),
        ),
        (
            "tokenizer.json",
            pretty(&json!({
                "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "ByteLevel" },
                "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
            })),
        ),
        (
            "tokenizer_config.json",
            pretty(&json!({
                "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<0x00>", "eos_token": "<0x01>",
            })),
        ),
        ("special_tokens_map.json", pretty(&json!({ "bos_token": "<0x00>", "eos_token": "<0x01>" }))),
        ("model.safetensors.index.json", index(weights)),
        (
            "README.md",
            format!("---\nlibrary_name: transformers\n---\n# {repo}\n\nGenerated; it says nothing.\n"),
        ),
        (".gitattributes", "*.safetensors filter=lfs diff=lfs merge=lfs -text\n".to_owned()),
    ];
    files.into_iter().map(|(path, text)| (path.to_owned(), text.into_bytes())).collect()
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// Sizes of the shards: even, because an element has two bytes, and big enough for their header.
fn shard_sizes(weights: Weights) -> Vec<usize> {
    let even = |size: usize| (size & !1).max(8 + HEADER + 2);
    let each = even(weights.size / weights.shards);
    let last = even(weights.size.saturating_sub(each * (weights.shards - 1)));
    std::iter::repeat_n(each, weights.shards - 1).chain([last]).collect()
}

/// Name and shape of each tensor in a shard of this size.
fn tensors(shard: usize, size: usize) -> Vec<(String, Vec<usize>)> {
    let elements = (size - 8 - HEADER) / 2;
    let rows = elements / HIDDEN / (LAYER_TENSORS.len() + 1);
    let mut tensors = Vec::new();
    if rows > 0 {
        tensors.extend(
            LAYER_TENSORS
                .iter()
                .map(|name| (format!("model.layers.{shard}.{name}.weight"), vec![rows, HIDDEN])),
        );
    }
    let left = elements - tensors.len() * rows * HIDDEN;
    let name = if shard == 0 {
        "model.embed_tokens.weight".to_owned()
    } else {
        format!("model.layers.{shard}.rest")
    };
    tensors.push((name, vec![left]));
    tensors
}

fn shard(shard: usize, size: usize, seed: u64) -> Vec<u8> {
    let mut header = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    let mut offset = 0;
    for (name, shape) in tensors(shard, size) {
        let end = offset + 2 * shape.iter().product::<usize>();
        let tensor = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [offset, end] });
        let _ = write!(header, ",\"{name}\":{tensor}");
        offset = end;
    }
    header.push('}');
    let mut file = (HEADER as u64).to_le_bytes().to_vec();
    file.extend(format!("{header:HEADER$}").into_bytes());
    file.extend(bytes(seed, size - file.len()));
    file
}

fn index(weights: Weights) -> String {
    let mut map = BTreeMap::new();
    let mut total = 0;
    for (i, size) in shard_sizes(weights).into_iter().enumerate() {
        total += size - 8 - HEADER;
        map.extend(tensors(i, size).into_iter().map(|(name, _)| (name, shard_name(i + 1, weights.shards))));
    }
    pretty(&json!({ "metadata": { "total_size": total }, "weight_map": map }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_valid_safetensors_and_the_index_names_each_tensor() {
        let weights = Weights { size: 300_000, shards: 3 };
        let files = large_files(weights, 7);
        assert_eq!(files.values().map(Vec::len).sum::<usize>(), weights.size);
        let index: serde_json::Value = serde_json::from_str(&index(weights)).unwrap();
        let mut named = 0;
        for (path, file) in &files {
            let header: BTreeMap<String, serde_json::Value> =
                serde_json::from_slice(&file[8..8 + HEADER]).unwrap();
            let mut end = 0;
            for (name, tensor) in header.iter().filter(|(name, _)| *name != "__metadata__") {
                assert_eq!(index["weight_map"][name], *path);
                named += 1;
                let elements: u64 =
                    tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product();
                let [from, to] = [0, 1].map(|i| tensor["data_offsets"][i].as_u64().unwrap());
                assert_eq!(to - from, 2 * elements);
                end = end.max(to);
            }
            assert_eq!(8 + HEADER as u64 + end, file.len() as u64, "no byte of {path} is outside a tensor");
        }
        assert_eq!(index["weight_map"].as_object().unwrap().len(), named);
    }

    #[test]
    fn a_model_too_small_for_its_header_still_has_all_its_shards() {
        let files = large_files(Weights { size: 10, shards: 2 }, 1);
        assert_eq!(files.len(), 2);
    }
}
