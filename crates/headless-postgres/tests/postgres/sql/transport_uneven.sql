update {schema}.topic_part set uneven = true
