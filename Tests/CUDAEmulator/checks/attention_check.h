void check_attention(uint64_t) {}
